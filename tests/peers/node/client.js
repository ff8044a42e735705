// A client of TestService on grpc-js, whose HTTP/2 is Node's own (nghttp2).
//
//     node client.js --port N --case NAME[,NAME...]
//
// Runs each case once and writes `ok NAME`; the first expectation that fails ends it with a message and exit code 1.

'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const { testing, Status, ErrorInfo, ECHO_INITIAL, ECHO_TRAILING, ECHO_STATUS, DETAILS } = require('./service');

const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const GZIP = { 'grpc.default_compression_algorithm': 2 };
// A flag of a single message, which the library does not export.
const NO_COMPRESS = 2;
const DEFLATE = { 'grpc.default_compression_algorithm': 1 };

// Bounds every call that should succeed, so that a hanging server is a failure and not a hanging test.
const inSeconds = (seconds) => ({ deadline: Date.now() + seconds * 1000 });
const patience = () => inSeconds(20);

const payload = (size) => ({ body: Buffer.alloc(size) });

function outputRequest(body, ...sizes) {
  return { payload: payload(body), response_parameters: sizes.map((size) => ({ size })) };
}

// A unary call as a promise of its response, head and trailers; a status other than OK rejects it.
function unaryCall(client, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    let head;
    let trailers;
    const call = client[method](request, metadata, patience(), (error, response) => {
      // The status event follows the callback.
      call.on('status', (status) => {
        trailers = status.metadata;
        error ? reject(error) : resolve({ response, head, trailers });
      });
    });
    call.on('metadata', (received) => (head = received));
  });
}

// The messages of a stream up to its end; a status other than OK throws.
async function messages(call) {
  const received = [];
  for await (const message of call) {
    received.push(message);
  }
  return received;
}

// The error of a call that must fail.
async function failure(what, promise) {
  try {
    await promise;
  } catch (error) {
    if (error.code === undefined) {
      throw error;
    }
    return error;
  }
  assert.fail(`${what}: the call succeeded`);
}

async function empty(client) {
  const { response } = await unaryCall(client, 'EmptyCall', {});
  assert.deepEqual({ ...response }, {});
}

async function unary(client) {
  const request = { response_size: 314159, payload: payload(271828) };
  const { response } = await unaryCall(client, 'UnaryCall', request);
  assert.ok(response.payload.body.equals(Buffer.alloc(314159)), "the response's payload");
}

async function serverStreaming(client) {
  const received = await messages(client.StreamingOutputCall(outputRequest(0, ...RESPONSE_SIZES), patience()));
  assert.deepEqual(received.map((response) => response.payload.body.length), RESPONSE_SIZES);
}

function inputCall(client, send) {
  return new Promise((resolve, reject) => {
    const call = client.StreamingInputCall(patience(), (error, response) => (error ? reject(error) : resolve(response)));
    send(call);
  });
}

async function clientStreaming(client) {
  const response = await inputCall(client, (call) => {
    REQUEST_SIZES.forEach((size) => call.write({ payload: payload(size) }));
    call.end();
  });
  assert.equal(response.aggregated_payload_size, 74922);
}

async function bidi(client) {
  const call = client.FullDuplexCall(patience());
  const responses = call[Symbol.asyncIterator]();
  for (const [index, size] of REQUEST_SIZES.entries()) {
    call.write(outputRequest(size, RESPONSE_SIZES[index]));
    const { value } = await responses.next();
    assert.equal(value.payload.body.length, RESPONSE_SIZES[index]);
  }
  call.end();
  assert.ok((await responses.next()).done, 'a response after the half-close');

  const nothing = client.FullDuplexCall(patience());
  nothing.end();
  assert.deepEqual(await messages(nothing), []);
}

async function metadata(client) {
  const sent = new grpc.Metadata();
  sent.set(ECHO_INITIAL, 'test_initial_metadata_value');
  sent.set(ECHO_TRAILING, Buffer.from([0xab, 0xab, 0xab]));
  const check = (head, trailers) => {
    assert.deepEqual(head.get(ECHO_INITIAL), ['test_initial_metadata_value']);
    assert.deepEqual(trailers.get(ECHO_TRAILING), [Buffer.from([0xab, 0xab, 0xab])]);
  };
  const { head, trailers } = await unaryCall(client, 'UnaryCall', { response_size: 1 }, sent);
  check(head, trailers);

  const call = client.FullDuplexCall(sent, patience());
  const [headEvent, statusEvent] = [once(call, 'metadata'), once(call, 'status')];
  call.write(outputRequest(0, 1));
  call.end();
  assert.equal((await messages(call)).length, 1);
  check((await headEvent)[0], (await statusEvent)[0].metadata);
}

async function status(client) {
  const texts = [
    'test status message',
    '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n',
    '100% of %41',
  ];
  for (const message of texts) {
    const wanted = { response_status: { code: 2, message } };
    let error = await failure('unary', unaryCall(client, 'UnaryCall', wanted));
    assert.deepEqual([error.code, error.details], [grpc.status.UNKNOWN, message]);
    const call = client.FullDuplexCall(patience());
    call.write(wanted);
    call.end();
    error = await failure('bidi', messages(call));
    assert.deepEqual([error.code, error.details], [grpc.status.UNKNOWN, message]);
  }
}

async function unimplemented(client) {
  const method = await failure('method', unaryCall(client, 'UnimplementedCall', {}));
  assert.equal(method.code, grpc.status.UNIMPLEMENTED);
  const other = new testing.UnimplementedService(client.getChannel().getTarget(), grpc.credentials.createInsecure());
  const service = await failure('service', unaryCall(other, 'UnimplementedCall', {}));
  assert.equal(service.code, grpc.status.UNIMPLEMENTED);
  other.close();
}

async function details(client) {
  const info = { reason: 'TOO_COLD', domain: 'example.test', metadata: { degrees: '-4' } };
  const detail = { type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value: ErrorInfo.encode(info).finish() };
  const sent = { code: 9, message: 'the details say more: 50% ☺', details: [detail] };
  const header = new grpc.Metadata();
  header.set(ECHO_STATUS, Buffer.from(Status.encode(sent).finish()));

  const check = (error) => {
    assert.deepEqual([error.code, error.details], [9, sent.message]);
    const [encoded] = error.metadata.get(DETAILS);
    const received = Status.toObject(Status.decode(encoded));
    assert.deepEqual([received.code, received.message, received.details.length], [9, sent.message, 1]);
    assert.deepEqual(ErrorInfo.toObject(ErrorInfo.decode(received.details[0].value)), info);
  };
  check(await failure('unary', unaryCall(client, 'UnaryCall', {}, header)));
  const call = client.FullDuplexCall(header, patience());
  call.write(outputRequest(0, 1));
  call.end();
  check(await failure('bidi', messages(call)));
}

async function deadline(client) {
  const started = Date.now();
  const call = client.FullDuplexCall(inSeconds(0.3));
  call.write(outputRequest(27182));
  let error = await failure('a server that does not answer', messages(call));
  assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
  const slow = { response_parameters: [{ size: 1, interval_us: 60_000_000 }] };
  error = await failure('a server that sleeps', messages(client.StreamingOutputCall(slow, inSeconds(0.3))));
  assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
  assert.ok(Date.now() - started < 10_000, 'both within ten seconds');
}

async function cancel(client) {
  let error = await failure('after begin', inputCall(client, (call) => call.cancel()));
  assert.equal(error.code, grpc.status.CANCELLED);

  const call = client.FullDuplexCall(patience());
  const responses = call[Symbol.asyncIterator]();
  call.write(outputRequest(27182, 31415));
  assert.equal((await responses.next()).value.payload.body.length, 31415);
  call.cancel();
  error = await failure('after the first response', responses.next());
  assert.equal(error.code, grpc.status.CANCELLED);

  // The channel must be usable afterwards.
  await unary(client);
}

// Runs `use` with a client whose messages are compressed.
async function withOptions(client, options, use) {
  const other = connect(client.getChannel().getTarget(), options);
  try {
    await use(other);
  } finally {
    other.close();
  }
}

async function compressed(client) {
  await withOptions(client, GZIP, async (gzip) => {
    await unary(gzip);
    await clientStreaming(gzip);
    await bidi(gzip);
  });
  // The library inflates without saying that it did; what arrives must be right either way.
  const request = { response_size: 314159, response_compressed: { value: true } };
  const { response } = await unaryCall(client, 'UnaryCall', request);
  assert.ok(response.payload.body.equals(Buffer.alloc(314159)), 'a compressed response');
  const mixed = outputRequest(0, 31415, 92653);
  mixed.response_parameters[0].compressed = { value: true };
  const received = await messages(client.StreamingOutputCall(mixed, patience()));
  assert.deepEqual(received.map((message) => message.payload.body.length), [31415, 92653]);
}

async function deflate(client) {
  await withOptions(client, DEFLATE, async (deflating) => {
    await unary(deflating);
    await clientStreaming(deflating);
  });
}

// First asks the server to refuse a message that is not compressed, which shows that it looks.
async function clientCompressedUnary(client) {
  const request = (value) => ({ response_size: 1, payload: payload(271828), expect_compressed: { value } });
  const error = await failure('the probe', unaryCall(client, 'UnaryCall', request(true)));
  assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
  await withOptions(client, GZIP, (gzip) => unaryCall(gzip, 'UnaryCall', request(true)));
  await unaryCall(client, 'UnaryCall', request(false));
}

async function clientCompressedStreaming(client) {
  const request = { payload: payload(27182), expect_compressed: { value: true } };
  const error = await failure('the probe', inputCall(client, (call) => call.end(request)));
  assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
  await withOptions(client, GZIP, async (gzip) => {
    const response = await inputCall(gzip, (call) => {
      call.write(request);
      // The place of the encoding carries the flags of the message.
      call.write({ payload: payload(45904) }, NO_COMPRESS);
      call.end();
    });
    assert.equal(response.aggregated_payload_size, 73086);
  });
}

const CASES = {
  empty,
  unary,
  server_streaming: serverStreaming,
  client_streaming: clientStreaming,
  bidi,
  metadata,
  status,
  unimplemented,
  details,
  deadline,
  cancel,
  compressed,
  deflate,
  client_compressed_unary: clientCompressedUnary,
  client_compressed_streaming: clientCompressedStreaming,
};

function connect(target, options = {}) {
  return new testing.TestService(target, grpc.credentials.createInsecure(), options);
}

async function main() {
  const { values } = parseArgs({ options: { port: { type: 'string' }, case: { type: 'string' } } });
  const client = connect(`127.0.0.1:${values.port}`);
  for (const name of values.case.split(',')) {
    assert.ok(name in CASES, `no case is called ${name}`);
    try {
      await CASES[name](client);
    } catch (error) {
      error.message = `${name}: ${error.message}`;
      throw error;
    }
    console.log(`ok ${name}`);
  }
}

// Ends the process: the timers of calls that were cancelled would keep it alive until their deadlines.
main().then(
  () => process.exit(0),
  (error) => {
    console.error(`FAILED: ${error.stack}`);
    process.exit(1);
  },
);
