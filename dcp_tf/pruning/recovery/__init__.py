"""What follows surgery without labels: weights fitted to block outputs, BatchNormalization statistics."""
