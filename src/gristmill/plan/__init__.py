"""What has to run: spaces, inputs, stages and the plan."""
