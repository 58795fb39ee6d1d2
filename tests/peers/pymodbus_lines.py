#!/usr/bin/env python3
"""Modbus devices by pymodbus on every kind of line: register N of unit 1 holds 1000 + N.

    pymodbus_lines.py tls CERTIFICATE KEY
    pymodbus_lines.py rtu-tcp
    pymodbus_lines.py serial PORT BAUD

Prints its port, or `ready`, once it listens. Ends with stdin.
"""

import asyncio
import ssl
import sys

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice


def server(kind, arguments):
    values = [1000 + number for number in range(100)]
    registers = SimData(address=0, values=values, datatype=DataType.REGISTERS)
    device = SimDevice(1, simdata=[registers])
    if kind == "serial":
        port, baud = arguments
        return ModbusSerialServer(device, port=port, baudrate=int(baud))
    if kind == "rtu-tcp":
        return ModbusTcpServer(device, framer=FramerType.RTU, address=("127.0.0.1", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*arguments)
    return ModbusTlsServer(device, sslctx=context, address=("127.0.0.1", 0))


async def main():
    kind = sys.argv[1]
    device = server(kind, sys.argv[2:])
    serving = asyncio.create_task(device.serve_forever())
    if kind == "serial":
        while not getattr(device, "transport", None):
            await asyncio.sleep(0.01)
        print("ready", flush=True)
    else:
        while not getattr(device, "transport", None) or not device.transport.sockets:
            await asyncio.sleep(0.01)
        print(device.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await device.shutdown()
    await serving


asyncio.run(main())
