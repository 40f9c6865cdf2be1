"""What the browser is given: the piano roll, the player and the style of every page, and pages of notes alone.

`browser/` has the scripts, style sheets and markup, each once: for the report of an evaluation (`mt3eval/report`), for
the page of one piece (`piece_page.py`) and for the server (`mt3serve`). None needs a build step or a network.
"""
