"""The client for asyncio programs: the same classes as in `masklet._sync`, awaited.

It runs gRPC's synchronous API on a thread for each stream, and does not use grpc.aio. With grpc.aio, a message that is
written to a stream which the server has just ended throws away the results that are not read yet, and the status that
says why the stream ended; the caller gets "Internal error from Core" instead. Acknowledgements and uploads meet that
moment at the end of every stream.
"""
