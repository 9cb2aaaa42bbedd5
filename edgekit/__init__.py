"""edgekit: package trained models for small devices, prove them, run them there, watch them from here."""
