#!/usr/bin/env python3
"""A Modbus TCP server by pymodbus: unit 1, holding registers that its stdin sets.

    pymodbus_server.py [PORT]

Prints its port once it listens. A line `ADDRESS VALUE` on stdin puts VALUE as a 32-bit float, high
word first, at ADDRESS and the register after it. Ends with stdin.
"""

import asyncio
import struct
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

WRITE = 16  # the function code under which the server's own registers are written


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    registers = SimData(address=0, count=100, values=0, datatype=DataType.REGISTERS)
    server = ModbusTcpServer(SimDevice(1, simdata=[registers]), address=("127.0.0.1", port))
    serving = asyncio.create_task(server.serve_forever())
    while not getattr(server, "transport", None) or not server.transport.sockets:
        await asyncio.sleep(0.01)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        address, value = line.split()
        words = struct.unpack(">HH", struct.pack(">f", float(value)))
        await server.async_setValues(1, WRITE, int(address), list(words))
        print("set", line.strip(), flush=True)
    await server.shutdown()
    await serving


asyncio.run(main())
