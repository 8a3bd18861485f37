"""Every published figure, reproducible from the project alone: `make bench`, `make demo`."""

import logging

# Libraries remark at import time on optional kernels; a report is no place for that.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
