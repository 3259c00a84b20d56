"""The gateway: the subnet's protocol in front of Triton."""
