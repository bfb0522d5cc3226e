import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { diskError, type TransferProgress } from '../transfer/download.js';
import { sendFile } from '../../tests/support/hub-server.js';
import { PUBLISHED_BASE_URL, PUBLISHED_FILES, type PublishedFile } from './published.js';
import { pullData, type PullOptions } from './pull.js';

const CONTENT = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) % 251));
const FILE: PublishedFile = {
  name: 'sft_train.csv',
  path: 'pre data/sft.csv',
  sha256: createHash('sha256').update(CONTENT).digest('hex'),
  bytes: CONTENT.length,
};

let dir: string;
let server: Server | undefined;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'duanzi-pull-'));
});
afterEach(async () => {
  await stop();
  await rm(dir, { recursive: true });
});

async function stop(): Promise<void> {
  const stopped = server;
  server = undefined;
  stopped?.closeAllConnections();
  if (stopped) await new Promise((resolve) => stopped.close(resolve));
}

/** Starts a server and returns its address and the Range headers that reached it. */
async function serve(listener: RequestListener): Promise<{ baseUrl: string; ranges: (string | undefined)[] }> {
  const ranges: (string | undefined)[] = [];
  const started = createServer((request, response) => {
    ranges.push(request.headers.range);
    listener(request, response);
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, '127.0.0.1', resolve));
  return { baseUrl: `http://127.0.0.1:${(started.address() as AddressInfo).port}/main`, ranges };
}

/** A listener that serves one file; `upTo` cuts the connection at that byte of it. */
const serving =
  (content: Buffer, upTo?: number): RequestListener =>
  (request, response) => {
    sendFile(request, response, content, upTo);
  };

/** Vitest's own comparison takes long over so many bytes. */
async function expectContent(path: string, content: Buffer): Promise<void> {
  expect((await readFile(path)).equals(content)).toBe(true);
}

const pull = (baseUrl: string, options: Partial<PullOptions> = {}) =>
  pullData({ dir, baseUrl, files: [FILE], retryDelay: 1, ...options });

describe('pullData', () => {
  it('fetches a file whole, reports progress, and leaves a right one alone', async () => {
    const urls: (string | undefined)[] = [];
    const { baseUrl, ranges } = await serve((request, response) => {
      urls.push(request.url);
      serving(CONTENT)(request, response);
    });
    const progress: TransferProgress[] = [];
    const path = join(dir, 'new', FILE.name);
    const options = { dir: join(dir, 'new'), onProgress: (p: TransferProgress) => void progress.push(p) };
    expect(await pull(baseUrl, options)).toEqual([{ name: FILE.name, path, status: 'downloaded' }]);
    await expectContent(path, CONTENT);
    expect(await readdir(options.dir)).toEqual([FILE.name]);
    expect(urls).toEqual(['/main/pre%20data/sft.csv']);
    expect(progress.at(-1)).toEqual({ file: FILE.name, received: CONTENT.length, total: CONTENT.length });
    expect(progress.map(({ received }) => received)).toEqual(progress.map((p) => p.received).sort((a, b) => a - b));

    expect(await pull(baseUrl, options)).toEqual([{ name: FILE.name, path, status: 'present' }]);
    expect(ranges).toHaveLength(1);
  });

  it('continues after a cut connection where it was cut', async () => {
    let cuts = [100_000, 200_000];
    const { baseUrl, ranges } = await serve((request, response) => {
      const [upTo, ...later] = cuts;
      cuts = later;
      serving(CONTENT, upTo)(request, response);
    });
    await pull(baseUrl);
    await expectContent(join(dir, FILE.name), CONTENT);
    expect(ranges).toEqual([undefined, 'bytes=100000-', 'bytes=200000-']);
  });

  it('continues what an earlier call left, and starts over with a server that knows no ranges', async () => {
    await writeFile(join(dir, `${FILE.name}.part`), CONTENT.subarray(0, 1000));
    const first = await serve(serving(CONTENT));
    await pull(first.baseUrl);
    expect(first.ranges).toEqual(['bytes=1000-']);
    await expectContent(join(dir, FILE.name), CONTENT);
    await stop();

    await rm(join(dir, FILE.name));
    await writeFile(join(dir, `${FILE.name}.part`), CONTENT.subarray(0, 1000));
    const { baseUrl } = await serve((_, response) => response.end(CONTENT));
    await pull(baseUrl);
    await expectContent(join(dir, FILE.name), CONTENT);
  });

  it.each([
    ['is of another file', Buffer.alloc(1000, 7)],
    ['is whole but wrong', Buffer.alloc(CONTENT.length, 7)],
    ['is too long', Buffer.alloc(CONTENT.length + 1, 7)],
    ['is whole and right', CONTENT],
  ])('gets the file when the part that is there %s', async (_, part) => {
    await writeFile(join(dir, `${FILE.name}.part`), part);
    const { baseUrl } = await serve(serving(CONTENT));
    await pull(baseUrl);
    await expectContent(join(dir, FILE.name), CONTENT);
    expect(await readdir(dir)).toEqual([FILE.name]);
  });

  it('starts over when the server refuses the range', async () => {
    await writeFile(join(dir, `${FILE.name}.part`), CONTENT.subarray(0, 1000));
    const { baseUrl, ranges } = await serve((request, response) => {
      if (request.headers.range === undefined) serving(CONTENT)(request, response);
      else response.writeHead(416).end();
    });
    await pull(baseUrl);
    expect(ranges).toEqual(['bytes=1000-', undefined]);
  });

  it.each([
    ['other bytes', Buffer.alloc(CONTENT.length, 7)],
    ['fewer bytes', CONTENT.subarray(0, 1000)],
    ['more bytes', Buffer.concat([CONTENT, CONTENT])],
  ])('refuses %s than were published and keeps nothing of them', async (_, content) => {
    const { baseUrl, ranges } = await serve(serving(content));
    await expect(pull(baseUrl)).rejects.toMatchObject({ code: 'transfer.wrong-checksum', exitCode: 2 });
    expect(ranges).toHaveLength(1);
    expect(await readdir(dir)).toEqual([]);
  });

  it('says at once that the server does not have the file, or refuses it', async () => {
    let status = 404;
    const { baseUrl, ranges } = await serve((_, response) => response.writeHead(status).end('no'));
    await expect(pull(baseUrl)).rejects.toMatchObject({ code: 'transfer.not-found', exitCode: 2 });
    status = 403;
    await expect(pull(baseUrl)).rejects.toMatchObject({ code: 'transfer.refused', exitCode: 2 });
    expect(ranges).toHaveLength(2);
  });

  it('tries a busy server again', async () => {
    let failures = 2;
    const { baseUrl, ranges } = await serve((request, response) => {
      if (failures-- > 0) response.writeHead(503).end();
      else serving(CONTENT)(request, response);
    });
    await pull(baseUrl);
    expect(ranges).toHaveLength(3);
  });

  it('gives up with exit code 3 where there is no network', async () => {
    const { baseUrl } = await serve(serving(CONTENT));
    await stop();
    const error: unknown = await pull(baseUrl, { attempts: 2 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'transfer.no-network', exitCode: 3 });
    expect((error as Error).message).toMatch(/2 times.*ECONNREFUSED/u);
  });

  it('takes silence for a cut connection', async () => {
    const { baseUrl } = await serve((_, response) => {
      response.writeHead(200, { 'content-length': CONTENT.length });
      response.write(CONTENT.subarray(0, 1000));
    });
    const error: unknown = await pull(baseUrl, { attempts: 1, idleTimeout: 200 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'transfer.no-network' });
    expect((error as Error).message).toContain('nothing arrived for 0.2 s');
    await expectContent(join(dir, `${FILE.name}.part`), CONTENT.subarray(0, 1000));
  });

  it('stops when told to and keeps what has arrived', async () => {
    const { baseUrl } = await serve((_, response) => {
      response.writeHead(200, { 'content-length': CONTENT.length });
      response.write(CONTENT.subarray(0, 1000));
    });
    const controller = new AbortController();
    const reason = new Error('enough');
    const pulling = pull(baseUrl, {
      signal: controller.signal,
      onProgress: ({ received }) => {
        if (received === 1000)
          setTimeout(() => {
            controller.abort(reason);
          }, 10);
      },
    });
    await expect(pulling).rejects.toBe(reason);
    await expectContent(join(dir, `${FILE.name}.part`), CONTENT.subarray(0, 1000));
  });

  it('never overwrites another file', async () => {
    await writeFile(join(dir, FILE.name), 'mine');
    await expect(pull('http://127.0.0.1:1')).rejects.toMatchObject({ code: 'data.file-in-the-way', exitCode: 2 });
    expect(await readFile(join(dir, FILE.name), 'utf8')).toBe('mine');
  });

  it('tells a bad address, a folder that is a file, and a full disk apart', async () => {
    await expect(pull('nowhere')).rejects.toMatchObject({ code: 'data.invalid-url', exitCode: 2 });
    await writeFile(join(dir, 'file'), '');
    await expect(pull('http://127.0.0.1:1', { dir: join(dir, 'file', 'sub') })).rejects.toMatchObject({
      code: 'transfer.unwritable-folder',
      exitCode: 2,
    });
    const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
    expect(diskError(full, dir)).toMatchObject({ code: 'transfer.no-space', exitCode: 3, cause: full });
  });

  it('knows the published files by checksum', () => {
    for (const { name, path, sha256 } of PUBLISHED_FILES) {
      expect(name).toMatch(/^\w+\.csv$/u);
      expect(new URL(path, PUBLISHED_BASE_URL).href).toMatch(/^https:\/\/.*\.csv$/u);
      expect(sha256).toMatch(/^[0-9a-f]{64}$/u);
    }
  });
});
