"""Readers and writers of user data: images (`images`), samples (`samples`), preference pairs (`preference_dataset`).

Invalid rows and images are refused here, with the row and the remedy, before a stage spends time on them.
"""
