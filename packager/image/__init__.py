"""What the image is: plan, planner, Dockerfile, build context, layers."""
