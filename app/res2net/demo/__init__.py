"""A page in the browser to try networks on images: `page` is what it shows, `server` serves it."""
