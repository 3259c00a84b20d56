"""What a validator speaks: signatures, nonces, stake, challenges and the routes."""
