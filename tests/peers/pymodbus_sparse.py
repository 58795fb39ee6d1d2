#!/usr/bin/env python3
"""A Modbus TCP server by pymodbus with holes in its maps, to be scanned.

    pymodbus_sparse.py

Units 3 and 7. Prints its port once it listens. Ends with stdin.
"""

import asyncio
import sys

from pymodbus import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


def registers(*blocks):
    return [
        SimData(address=first, count=last - first + 1, values=7, datatype=DataType.REGISTERS)
        for first, last in blocks
    ]


def bits(*blocks):
    return [
        SimData(address=first, values=[True] * (last - first + 1), datatype=DataType.BITS)
        for first, last in blocks
    ]


async def main():
    identity = ModbusDeviceIdentification(
        info_name={"VendorName": "ACME", "ProductCode": "PM5", "MajorMinorRevision": "1.7"}
    )
    devices = [
        SimDevice(
            3,
            simdata=(
                bits((16, 31)),
                bits((0, 15)),
                registers((5, 9), (12, 12), (100, 130)),
                registers((0, 3), (40, 41)),
            ),
        ),
        SimDevice(7, simdata=(bits((0, 15)), bits((0, 15)), registers((0, 9)), registers((0, 0)))),
    ]
    server = ModbusTcpServer(devices, identity=identity, address=("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve_forever())
    while not getattr(server, "transport", None) or not server.transport.sockets:
        await asyncio.sleep(0.01)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    await server.shutdown()
    await serving


asyncio.run(main())
