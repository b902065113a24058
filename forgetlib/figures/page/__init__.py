"""One HTML page of every drawn study: `page` writes it, of `study`'s and `questions`' contents."""
