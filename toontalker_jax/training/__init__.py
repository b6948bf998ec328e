"""Training: what a stage optimises (`stage1`, `stage2`), one step of it (`step`), and the loop."""
