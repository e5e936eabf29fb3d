"""SAM 2's network computed by OpenVINO, which is quicker than torch on CPUs. Needs the extra `cpu`."""
