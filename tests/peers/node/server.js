// TestService on grpc-js, whose HTTP/2 is Node's own (nghttp2).
//
//     node server.js [--port N] [--max_concurrent_streams N]
//
// Listens on 127.0.0.1 and writes `port N` when it is ready. Writes `cancelled PATH` when a call ends before its
// handler does. Stops when its standard input ends. grpc-js compresses nothing that a server sends.

'use strict';

const timers = require('node:timers/promises');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const { testing, Status, ECHO_INITIAL, ECHO_TRAILING, ECHO_STATUS, DETAILS } = require('./service');

// Reports the calls that are given up. grpc-js says `cancelled` of every call that is over, so that a handler notes in
// `finished` that it has done its part.
function watch(call, method) {
  call.on('cancelled', () => {
    if (!call.finished) {
      console.log(`cancelled /grpc.testing.TestService/${method}`);
    }
  });
}

// Sends what the request asks for in the response's head, and gives the trailers.
function echoMetadata(call) {
  const [initial] = call.metadata.get(ECHO_INITIAL);
  if (initial !== undefined) {
    const head = new grpc.Metadata();
    head.set(ECHO_INITIAL, initial);
    call.sendMetadata(head);
  }
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(ECHO_TRAILING)) {
    trailers.add(ECHO_TRAILING, value);
  }
  return trailers;
}

// Throws when the request asks for a status.
function echoStatus(call, wanted) {
  const [encoded] = call.metadata.get(ECHO_STATUS);
  if (encoded !== undefined) {
    const { code, message } = Status.decode(encoded);
    const metadata = new grpc.Metadata();
    metadata.set(DETAILS, encoded);
    throw { code, details: message, metadata };
  }
  if (wanted && wanted.code !== 0) {
    throw { code: wanted.code, details: wanted.message };
  }
}

function payload(type, size) {
  if (type !== 0 || size < 0) {
    throw { code: grpc.status.INVALID_ARGUMENT, details: `no payload of type ${type} and size ${size}` };
  }
  return { type, body: Buffer.alloc(size) };
}

// Writes one response for each of the request's parameters.
async function respond(call, request) {
  for (const { size, interval_us: interval, fill_peer_socket_address: fillPeer } of request.response_parameters) {
    if (interval > 0) {
      await timers.setTimeout(interval / 1000);
    }
    if (call.cancelled) {
      return;
    }
    const response = { payload: payload(request.response_type, size) };
    if (fillPeer?.value) {
      response.peer_socket_address = call.getPeer();
    }
    call.write(response);
  }
}

// Ends a stream of responses once `work` is done: with its trailers, or with the status that it throws.
async function finish(call, work) {
  try {
    const trailers = await work();
    call.finished = !call.cancelled;
    call.end(trailers);
  } catch (status) {
    call.finished = true;
    call.emit('error', status);
  }
}

// Gives each request to `take`, one at a time. Iterating the call would do, but destroys it at the end of the requests,
// when the responses may still be under way. A call that is given up ends its requests too, some turns of the event loop
// before it says so, hence the pause before their end counts.
function eachRequest(call, take) {
  return new Promise((resolve, reject) => {
    let last = Promise.resolve();
    call.on('data', (request) => {
      last = last.then(() => take(request));
      last.catch(reject);
    });
    call.on('end', () => setTimeout(() => last.then(resolve, reject), 10));
  });
}

const service = {
  EmptyCall(call, done) {
    done(null, {});
  },

  UnaryCall(call, done) {
    watch(call, 'UnaryCall');
    const { request } = call;
    call.finished = true;
    try {
      const trailers = echoMetadata(call);
      echoStatus(call, request.response_status);
      const response = { payload: payload(request.response_type, request.response_size) };
      if (request.fill_server_id) {
        response.server_id = String(process.pid);
      }
      done(null, response, trailers);
    } catch (status) {
      done(status);
    }
  },

  StreamingOutputCall(call) {
    watch(call, 'StreamingOutputCall');
    finish(call, () => respond(call, call.request));
  },

  async StreamingInputCall(call, done) {
    watch(call, 'StreamingInputCall');
    let total = 0;
    await eachRequest(call, (request) => {
      total += request.payload?.body.length ?? 0;
    });
    call.finished = !call.cancelled;
    done(null, { aggregated_payload_size: total });
  },

  FullDuplexCall(call) {
    watch(call, 'FullDuplexCall');
    finish(call, async () => {
      const trailers = echoMetadata(call);
      await eachRequest(call, (request) => {
        echoStatus(call, request.response_status);
        return respond(call, request);
      });
      return trailers;
    });
  },

  HalfDuplexCall(call) {
    watch(call, 'HalfDuplexCall');
    finish(call, async () => {
      const requests = [];
      await eachRequest(call, (request) => {
        requests.push(request);
      });
      for (const request of requests) {
        await respond(call, request);
      }
    });
  },
};

const { values } = parseArgs({
  options: { port: { type: 'string', default: '0' }, max_concurrent_streams: { type: 'string' } },
});
const streams = values.max_concurrent_streams;
const server = new grpc.Server(streams ? { 'grpc.max_concurrent_streams': Number(streams) } : {});
server.addService(testing.TestService.service, service);
server.bindAsync(`127.0.0.1:${values.port}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) {
    throw error;
  }
  console.log(`port ${port}`);
});
process.stdin.resume().on('end', () => process.exit(0));
