// Tracks the rabbit of examples/bunny.mp4 with @grpc/grpc-js; the contract is loaded when the program starts.
//
//     npm run grpc-js -- [SERVER [VIDEO]]

import { createReadStream } from "node:fs";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import * as protoLoader from "@grpc/proto-loader";
import { describe, type Mask } from "./rle.js";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const server = process.argv[2] ?? "127.0.0.1:50051";
const video = process.argv[3] ?? here("../../bunny.mp4");

interface ObjectResult {
  object_id: number;
  mask: Mask;
}

interface TrackResponse {
  response: string; // the name of the field that is set: the oneof
  frame_result?: { frame_index: number; objects: ObjectResult[] };
  error?: { message: string };
  done?: { frame_count: number };
}

// keepCase: names stay as they are in the contract. defaults: fields that are 0, which are not on the wire, are 0 here, and
// not undefined. longs as strings: numbers of 64 bits may exceed a JavaScript number.
const definition = protoLoader.loadSync("masklet/v1/tracking.proto", {
  includeDirs: [here("../../../protos")],
  keepCase: true,
  defaults: true,
  longs: String,
  enums: String,
  oneofs: true,
});
const contract = grpc.loadPackageDefinition(definition) as any;
const client = new contract.masklet.v1.TrackingService(server, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": 32 * 1024 * 1024,
});

const metadata = new grpc.Metadata();
if (process.env.MASKLET_TOKEN) metadata.set("authorization", `Bearer ${process.env.MASKLET_TOKEN}`);
const call: grpc.ClientDuplexStream<object, TrackResponse> = client.Track(metadata);

call.on("data", (response: TrackResponse) => {
  switch (response.response) {
    case "frame_result": {
      const { frame_index, objects } = response.frame_result!;
      for (const object of objects) {
        console.log(`frame ${frame_index}, object ${object.object_id}: ${describe(object.mask)}`);
      }
      break;
    }
    case "error":
      console.error(`the server says: ${response.error!.message}`);
      break;
    case "done":
      console.log(`done after ${response.done!.frame_count} frames`);
      break;
  }
});
call.on("error", (error: grpc.ServiceError) => {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
});

/** Sends a message, and waits where the network is slower than the disk. */
function send(request: object): Promise<void> {
  return new Promise((resolve) => (call.write(request) ? resolve() : call.once("drain", resolve)));
}

await send({ config: {} });
await send({
  prompt: { object_id: 1, frame_index: 0, points: [{ x: 345, y: 400, label: "POINT_LABEL_FOREGROUND" }] },
});
for await (const chunk of createReadStream(video, { highWaterMark: 512 * 1024 })) {
  await send({ video_chunk: chunk });
}
await send({ end_of_video: {} });
call.end(); // half-closes: from here on, results need no acknowledgement
