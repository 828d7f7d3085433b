"""Parts of a page that are as much as a page of their own."""
