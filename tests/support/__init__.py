"""What several tests share: small videos, a quick model for the real Triton, a gateway in this process."""
