"""Explanation of one consultation: what decided about the order, each kind and each method.

Nothing here decides. The explanation runs the very functions of a consultation, again and again:
with one obstacle removed each time, to find the rules behind the first one that refuses, and with a
single channel, card, instalment term or quota, to find what each of them contributes.
"""
