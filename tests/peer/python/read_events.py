"""What TensorBoard finds in a folder of event files, as JSON. Usage: read_events.py FOLDER"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def number(value):
    """NaN and infinities are not JSON."""
    return value if value == value and abs(value) != float("inf") else str(value)


accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
accumulator.Reload()
tags = accumulator.Tags()
scalars = {
    tag: [[event.step, event.wall_time, number(event.value)] for event in accumulator.Scalars(tag)]
    for tag in tags["scalars"]
}
texts = {
    tag: [
        [event.step, event.wall_time, [item.decode() for item in tensor_util.make_ndarray(event.tensor_proto).flat]]
        for event in accumulator.Tensors(tag)
    ]
    for tag in tags["tensors"]
    if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "text"
}
print(json.dumps({"scalars": scalars, "texts": texts}))
