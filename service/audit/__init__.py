"""Audits of whole data sets against a model: is it as steep there as where it was calibrated?"""
