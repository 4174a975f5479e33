"""Files of many formats to drafts: titled plain text with labels, before anything is cleaned or judged."""
