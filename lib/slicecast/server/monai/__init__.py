"""The routes of MONAI Label that clients label with: its own made safe, and ours in place of some."""
