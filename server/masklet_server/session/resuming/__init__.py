"""Sessions that outlive their calls: parked when a call breaks, and resumed by the next one."""
