"""The bundle's page for people: one self-contained HTML file with inline SVG, no script, nothing loaded from elsewhere.

`svg` draws, `page` says what is on the page. Notebooks show the same fragments.
"""
