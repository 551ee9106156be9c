"""The image: plan, planner, Dockerfile, build context and layers."""
