import { chmod, lstat, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HubServer, sendFile } from '../../tests/support/hub-server.js';
import type { StageEvent } from '../runs/events.js';
import { localModel } from './local-model.js';

const COMMIT = 'c'.repeat(40);
const WEIGHTS = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) % 251));
const FILES = {
  'config.json': Buffer.from('{"model_type":"qwen3"}'),
  'tokenizer.json': Buffer.from('{}'),
  'model.safetensors': WEIGHTS,
  'README.md': Buffer.from('# A model'),
  'pytorch_model.bin': Buffer.from('older weights'),
  'model.onnx': Buffer.from('no'),
};
const READ = ['config.json', 'model.safetensors', 'tokenizer.json'];
const large = ['model.safetensors', 'pytorch_model.bin'];

let home: string;
let server: HubServer;
let events: StageEvent[];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'duanzi-hub-'));
  events = [];
  server = await HubServer.start({
    'Org/Model': { files: FILES, large },
    'Org/Old.Base': { files: { 'config.json': FILES['config.json'], 'pytorch_model.bin': WEIGHTS }, large },
    'Org/Gguf': { files: { 'model.gguf': WEIGHTS } },
  });
  for (const name of ['HF_TOKEN', 'HF_HUB_OFFLINE', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'MODELSCOPE_API_TOKEN']) {
    vi.stubEnv(name, undefined);
  }
  vi.stubEnv('HF_HOME', home);
  vi.stubEnv('HF_ENDPOINT', `${server.url}/`);
  vi.stubEnv('MODELSCOPE_DOMAIN', server.url);
  vi.stubEnv('MODELSCOPE_CACHE', join(home, 'scope'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  await chmod(home, 0o755);
  await rm(home, { recursive: true });
});

const context = { onEvent: (event: StageEvent) => void events.push(event) };
const get = (model: string): Promise<string> => localModel(model, context, { attempts: 3, retryDelay: 1 });
const failure = (model: string): Promise<unknown> => get(model).catch((error: unknown) => error);
const snapshot = (): string => join(home, 'hub', 'models--Org--Model', 'snapshots', COMMIT);

/** An address where nobody listens. */
async function nowhere(): Promise<string> {
  const stopped = await HubServer.start({});
  const { url } = stopped;
  await stopped.stop();
  return url;
}

async function expectWhole(folder: string): Promise<void> {
  expect((await readdir(folder)).sort()).toEqual(READ);
  expect((await readFile(join(folder, 'model.safetensors'))).equals(WEIGHTS)).toBe(true);
}

describe('a name on the Hugging Face hub', () => {
  it('is fetched once into the standard cache, as links to content by checksum', async () => {
    expect(await get('Org/Model')).toBe(snapshot());
    await expectWhole(snapshot());
    expect((await lstat(join(snapshot(), 'model.safetensors'))).isSymbolicLink()).toBe(true);
    expect(await readlink(join(snapshot(), 'model.safetensors'))).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/u);
    expect(await readFile(join(home, 'hub', 'models--Org--Model', 'refs', 'main'), 'utf8')).toBe(COMMIT);
    const bytes = READ.reduce((sum, name) => sum + FILES[name as keyof typeof FILES].length, 0);
    expect(events.at(-1)).toMatchObject({ type: 'progress', task: 'download Org/Model', done: bytes, total: bytes });
    expect(server.requests.filter((path) => path.startsWith('/cdn/'))).toHaveLength(1);

    server.requests.length = 0;
    expect(await get(`Org/Model@${COMMIT}`)).toBe(snapshot());
    expect(server.requests.every((path) => path.startsWith('/api/models/'))).toBe(true);
  });

  it('takes weights as .bin where there is no better form', async () => {
    expect((await readdir(await get('Org/Old.Base'))).sort()).toEqual(['config.json', 'pytorch_model.bin']);
  });

  it('sends the token, from the variable or from the file of the login, and not to where it is redirected', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    await get('Org/Model');
    expect(new Set(server.authorizations)).toEqual(new Set(['Bearer hf_secret']));
    server.authorizations.length = 0;
    vi.stubEnv('HF_TOKEN', undefined);
    await writeFile(join(home, 'token'), 'hf_stored\n');
    await get('Org/Model');
    expect(new Set(server.authorizations)).toEqual(new Set(['Bearer hf_stored']));
  });

  it('goes on where the connection was cut, also in a later call', async () => {
    let cuts = [100_000, 200_000];
    server.fault = (request, response) => {
      const [upTo, ...later] = cuts;
      if (!request.url!.startsWith('/cdn/') || upTo === undefined) return false;
      cuts = later;
      sendFile(request, response, WEIGHTS, upTo);
      return true;
    };
    await localModel('Org/Model', context, { attempts: 1 }).catch(() => undefined);
    expect(await readdir(snapshot()).catch(() => [])).not.toContain('config.json');
    await get('Org/Model');
    expect(server.requests.filter((path) => path.startsWith('/cdn/'))).toEqual([
      '/cdn/Org/Model/model.safetensors',
      '/cdn/Org/Model/model.safetensors bytes=100000-',
      '/cdn/Org/Model/model.safetensors bytes=200000-',
    ]);
    await expectWhole(snapshot());
  });

  it('is fetched once by two that want it at the same time', async () => {
    expect(await Promise.all([get('Org/Model'), get('Org/Model')])).toEqual([snapshot(), snapshot()]);
    await expectWhole(snapshot());
    expect(server.requests.filter((path) => path.startsWith('/cdn/'))).toHaveLength(1);
  });

  it('waits as long as a busy server asks', async () => {
    let refusals = 2;
    server.fault = (_, response) => {
      if (refusals-- <= 0) return false;
      response.writeHead(429, { 'retry-after': '0' }).end();
      return true;
    };
    await expectWhole(await get('Org/Model'));
  });

  it('refuses content that is not what was announced, and keeps nothing of it', async () => {
    server.fault = (request, response) => {
      if (!request.url!.startsWith('/cdn/')) return false;
      sendFile(request, response, Buffer.alloc(WEIGHTS.length, 7));
      return true;
    };
    expect(await failure('Org/Model')).toMatchObject({ code: 'transfer.wrong-checksum', exitCode: 2 });
    expect(await readdir(snapshot()).catch(() => [])).not.toContain('config.json');
    server.fault = () => false;
    await expectWhole(await get('Org/Model'));
  });

  it.each([
    ['Org/Nothing', 'hub.no-access', 2],
    ['Org/Model@nowhere', 'hub.no-model', 2],
    ['Org/Gguf', 'hub.not-a-model', 2],
  ])('%s is refused: %s', async (model, code, exitCode) => {
    expect(await failure(model)).toMatchObject({ code, exitCode });
  });

  it('says that an answer is not the hub’s', async () => {
    server.fault = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Please log in</html>');
      return true;
    };
    expect(await failure('Org/Model')).toMatchObject({ code: 'hub.answer', exitCode: 2 });
  });
});

describe('without a network', () => {
  it('the cache is used, with a warning; offline mode does not even ask', async () => {
    await get('Org/Model');
    const asked = server.requests.length;
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect(await get('Org/Model')).toBe(snapshot());
    expect(server.requests).toHaveLength(asked);

    vi.stubEnv('HF_HUB_OFFLINE', undefined);
    vi.stubEnv('HF_ENDPOINT', await nowhere());
    events.length = 0;
    expect(await get('Org/Model')).toBe(snapshot());
    expect(events).toMatchObject([{ type: 'warning', code: 'hub.from-cache' }]);
  });

  it('a model that is not in the cache is missed with exit code 3, and the folder that was perhaps meant is named', async () => {
    vi.stubEnv('HF_ENDPOINT', await nowhere());
    const error = await failure('runs/sft');
    expect(error).toMatchObject({ code: 'hub.not-here', exitCode: 3 });
    expect((error as Error).message).toMatch(/no folder runs\/sft.*ECONNREFUSED/u);
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect(await failure('Org/Model')).toMatchObject({ code: 'hub.not-here', exitCode: 3 });
  });

  it('a cache that lacks a file still counts as none', async () => {
    await get('Org/Model');
    await rm(join(snapshot(), 'config.json'));
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect(await failure('Org/Model')).toMatchObject({ code: 'hub.not-here' });
  });
});

describe('a name on ModelScope', () => {
  it('is fetched and checked', async () => {
    const folder = await get('modelscope:Org/Model');
    expect(folder).toContain(join(home, 'scope', 'models--Org--Model', 'snapshots'));
    await expectWhole(folder);
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect(await get('modelscope:Org/Model')).toBe(folder);
  });

  it('that does not exist is refused', async () => {
    expect(await failure('modelscope:Org/Nothing')).toMatchObject({ code: 'hub.no-access' });
  });
});

describe('a folder', () => {
  it('is taken as it is, also through a link, and what is no name is left to its reader', async () => {
    expect(await get(home)).toBe(home);
    await symlink(home, join(home, 'link'));
    expect(await get(join(home, 'link'))).toBe(join(home, 'link'));
    expect(await get('./Org/Model')).toBe('./Org/Model');
    expect(server.requests).toEqual([]);
  });
});
