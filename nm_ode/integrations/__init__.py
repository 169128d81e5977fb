"""The recorder within other libraries' training loops: each module imports its library, and is imported when used.

lightning.py     nm_ode.integrations.lightning.RecorderCallback, of Lightning's Trainer
transformers.py  nm_ode.integrations.transformers.RecorderCallback, of transformers' Trainer
"""
