"""The web server: MONAI Label's routes, made safe and taken off the event loop."""
