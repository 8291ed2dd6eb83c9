"""From a name and some files to a model in eval mode and batches with their masks."""

import os

# The libraries read these when they are first imported, so they are set before that. What a user has set stays.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # no conversion by a bot behind the user's back
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
