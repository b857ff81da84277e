"""The clock process: `Handler.handle` is called at each time of its schedule."""

import traceback

from componentize_py_types import Err
from greeting import greeting
from wit_world import exports
from wit_world.imports.types import Tick


class Handler(exports.Handler):
    def handle(self, tick: Tick) -> None:
        """A tick isn't repeated: what must not be missed is put on a queue, for a worker."""
        try:
            print(f"tick {tick.nominal_ms // 1000} s: {greeting(None)}", end="", flush=True)
        # An exception that leaves a component is a trap, which costs the instance.
        except Exception as error:
            traceback.print_exception(error)
            raise Err(str(error))
