"""What tests share: drawn layers and networks, malformed files and models, checks of messages."""
