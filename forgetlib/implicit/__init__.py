"""In-context linear regression: does fine-tuning delete a skill, or shift which task is inferred?

After *Understanding Catastrophic Forgetting in Language Models via Implicit Inference* (Kotha,
Springer, Raghunathan; ICLR 2024; arXiv 2309.10105), section 2.
"""
