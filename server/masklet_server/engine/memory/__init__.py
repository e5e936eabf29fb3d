"""What is kept of an object's past: banks, histories, policies."""
