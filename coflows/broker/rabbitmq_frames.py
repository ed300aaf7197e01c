"""A connection that no message of others' can break: what pika cannot read of its properties is left out."""

from __future__ import annotations

import logging
import struct
from typing import Any

from pika import frame, spec
from pika.adapters.select_connection import SelectConnection

logger = logging.getLogger(__name__)

CONTENT_HEADER = ">BHIHHQ"
"""Type, channel and size of the frame; class, weight and size of the body."""


class ReadingConnection(SelectConnection):  # type: ignore[misc]
    """Times beyond the calendar, numbers that are none, tables a thousand deep: RabbitMQ passes on in the headers of a
    message what pika raises at, in the middle of the connection's loop, and again after each reconnect."""

    def _read_frame(self) -> tuple[int, Any]:
        try:
            return super()._read_frame()  # type: ignore[no-any-return]
        except Exception as error:
            buffer = self._frame_buffer
            if buffer[:1] != bytes([spec.FRAME_HEADER]):
                raise
            _, channel, size, _, _, body_size = struct.unpack_from(CONTENT_HEADER, buffer)
            logger.warning("The properties of a message cannot be read (%s); they are left out.", type(error).__name__)
            consumed = spec.FRAME_HEADER_SIZE + size + spec.FRAME_END_SIZE
            return consumed, frame.Header(channel, body_size, spec.BasicProperties())
