"""Generated from protos/masklet/v1 by scripts/protos: do not edit."""
