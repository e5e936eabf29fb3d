"""The engine on devices that are not there."""
