"""What runs inside the images. Imports nothing from the rest of the package; copied, never installed."""
