"""Tokens and model turns of plain tool calls beside programs, on workloads with tools that really run.

No model is asked: each way is played by a script that makes no mistake and says nothing that it need not say. What is
counted is what a conversation of that form costs: in every request the instructions, the tools and the whole history;
in every reply the calls, the program or the answer.
"""
