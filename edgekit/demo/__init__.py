"""The whole road on one machine: a real model is trained, proved, packed, run on three devices, and a drift is caught.

| module | plays |
|---|---|
| `world` | the data, the model, and what the sensors say, drift included |
| `broker` | an MQTT broker inside this process (amqtt) |
| `devices` | three `edgekit-runtime run` processes, and the clients that send them requests |
| `road` | the story, step by step |
"""
