"""The demo: questions about 336,776 real flights, answered by single tool calls and by one program."""
