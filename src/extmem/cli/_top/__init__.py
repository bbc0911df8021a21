"""The parts of `extmem top`: a live view of what is shared, on a terminal or in a browser.

`items` and `model` are what the view shows, `columns` how a row looks, `details` what is known of one row: pure, and
without Textual. `channels` defines what the view needs to know of channels. `reading` asks the object manager, in a
thread. `table` and `app` are the widgets, `served`, `program`, `page` and `web` the browser's part. Only `table`,
`app`, `served` and `web` need packages of the extra `top`.
"""
