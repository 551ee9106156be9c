"""Does the model serve?"""
