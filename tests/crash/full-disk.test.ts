import { existsSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { openModelFolder } from '../../src/checkpoints/model-folder.js';
import { UserError } from '../../src/errors.js';
import { localModel } from '../../src/hub/local-model.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { mergeAndCompare } from '../../src/training/merge-report.js';
import { golden } from '../support/golden.js';
import { HubServer } from '../support/hub-server.js';
import { Disturbed } from './faults.js';
import { mountInMemory, unmount } from './in-memory.js';

/*
 * A download and a merge onto a disk without room end as a fault of the machine that says how much they need, leave
 * nothing that could be taken for whole, and are done by the next try when there is room. The disk is a small one in
 * memory where one may be mounted; everywhere the writes of this process are told that there is no space.
 */

const root = await mkdtemp(join(tmpdir(), 'duanzi-full-'));
const disturbed = await Disturbed.install(root);
const runtime = new Runtime({ threads: 1 });
afterAll(async () => {
  await runtime.close();
  await rm(root, { recursive: true });
});

/** A folder on a disk that is filled and freed at will. */
interface Disk {
  readonly folder: string;
  fill(): void;
  free(): void;
  remove(): Promise<void>;
}

/** Bytes that are left on a full disk: not nothing, or it would be too easy. */
const LEFT = 96 * 1024;

async function mounted(): Promise<Disk> {
  const folder = await mkdtemp(join(root, 'disk-'));
  await mountInMemory(folder, 2 ** 22);
  const filler = join(folder, 'filler');
  return {
    folder,
    fill: () => {
      const { bavail, bsize } = statfsSync(folder);
      writeFileSync(filler, Buffer.alloc(bavail * bsize - LEFT));
    },
    free: () => {
      rmSync(filler);
    },
    remove: () => unmount(folder),
  };
}

/** Writes fail from the third on, as the first ones may still find room. */
async function told(): Promise<Disk> {
  return {
    folder: await mkdtemp(join(root, 'disk-')),
    fill: () => {
      disturbed.begin({ kind: 'ENOSPC', at: 2 });
    },
    free: () => {
      disturbed.begin(undefined);
    },
    remove: () => Promise.resolve(),
  };
}

const mayMount = await mounted().then(
  (disk) => disk.remove().then(() => true),
  () => false,
);
const SMALL = 'a small disk';
const disks = [['a disk that says so', told] as const, ...(mayMount ? [[SMALL, mounted] as const] : [])];

const failure = async (work: Promise<unknown>): Promise<UserError> => {
  const error: unknown = await work.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  expect(error).toMatchObject({ exitCode: 3 });
  return error as UserError;
};

/** Numbers of the calls of some work on a free disk that would change what is on it. */
async function writesOf(work: () => Promise<unknown>): Promise<number[]> {
  disturbed.begin(undefined);
  await work();
  return [...disturbed.writes.keys()];
}

describe('a download', () => {
  const WEIGHTS = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) % 251));
  const files = { 'config.json': Buffer.from('{"model_type":"qwen3"}'), 'model.safetensors': WEIGHTS };
  let server: HubServer;
  beforeEach(async () => {
    server = await HubServer.start({ 'Org/Model': { files, large: ['model.safetensors'] } });
    vi.stubEnv('HF_ENDPOINT', server.url);
    vi.stubEnv('HF_HUB_OFFLINE', undefined);
    vi.stubEnv('HF_HUB_CACHE', undefined);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await server.stop();
  });

  const get = (home: string): Promise<string> => {
    vi.stubEnv('HF_HOME', home);
    return localModel('Org/Model', { onEvent: () => undefined }, { attempts: 1 });
  };
  const expectNothingWhole = async (home: string): Promise<void> => {
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    await expect(get(home)).rejects.toMatchObject({ code: 'hub.not-here' });
    vi.stubEnv('HF_HUB_OFFLINE', undefined);
  };
  const expectWhole = async (folder: string): Promise<void> => {
    for (const [name, content] of Object.entries(files)) {
      expect((await readFile(join(folder, name))).equals(content), name).toBe(true);
    }
  };

  it.each(disks)('that fills %s says what it needs, keeps what came, and goes on from there', async (_, make) => {
    const disk = await make();
    onTestFinished(() => disk.remove());
    let filled = false;
    server.fault = (request) => {
      if (!filled && request.url!.startsWith('/cdn/')) {
        disk.fill();
        filled = true;
      }
      return false;
    };
    const { code, message, where } = await failure(get(disk.folder));
    expect(code).toBe('transfer.no-space');
    expect(message).toMatch(/\(ENOSPC\): model\.safetensors takes 293 KiB, of which \S+ (KiB|bytes) are here\.$/);
    expect(where).toMatch(/\.incomplete$/);
    await expectNothingWhole(disk.folder);
    disk.free();
    await expectWhole(await get(disk.folder));
    const asked = server.requests.filter((path) => path.startsWith('/cdn/'));
    expect(asked).toHaveLength(2);
    expect(asked[1]).toMatch(/ bytes=[1-9]\d*-$/);
  });

  it.each(disks)('onto %s that is full says what it needs, fetches nothing, and is done later', async (title, make) => {
    const disk = await make();
    onTestFinished(() => disk.remove());
    disk.fill();
    const { code, message } = await failure(get(disk.folder));
    if (title === SMALL) {
      expect(code).toBe('hub.no-space');
      expect(message).toMatch(/^The download of Org\/Model needs 293 KiB; 9\d\.\d KiB are free\.$/);
    } else expect(message).toContain('ENOSPC');
    expect(server.requests.filter((path) => path.startsWith('/cdn/'))).toEqual([]);
    disk.free();
    await expectWhole(await get(disk.folder));
  });

  it('is done by the next try, whichever write finds the disk full', async () => {
    const writes = await writesOf(async () => expectWhole(await get(await mkdtemp(join(root, 'home-')))));
    expect(writes.length).toBeGreaterThan(5);
    let failed = 0;
    for (const at of writes) {
      const home = await mkdtemp(join(root, 'home-'));
      disturbed.begin({ kind: 'ENOSPC', at });
      const thrown: unknown = await get(home).catch((error: unknown) => error);
      disturbed.begin(undefined);
      if (typeof thrown !== 'string') {
        expect(thrown, `at write ${at}`).toMatchObject({ exitCode: 3 });
        await expectNothingWhole(home);
        failed++;
      }
      await expectWhole(await get(home));
    }
    expect(failed).toBeGreaterThan(5);
  });
});

describe('a merge', () => {
  const [model, adapter] = [golden('qwen3/model'), golden('lora/adapter')];
  const merge = (folder: string): Promise<unknown> =>
    mergeAndCompare(runtime, { model, adapter, out: join(folder, 'merged'), dtype: 'float32' });

  it.each(disks)('onto %s that is full leaves nothing, and is done when there is room', async (title, make) => {
    const disk = await make();
    onTestFinished(() => disk.remove());
    disk.fill();
    const { code, message, where } = await failure(merge(disk.folder));
    if (title === SMALL) {
      expect(code).toBe('merge.no-space');
      expect(message).toMatch(/^The merged model needs \S+ [KM]iB; 9\d\.\d KiB are free\.$/);
    } else expect(code).toBe('file.disk');
    expect(where).toBe(join(disk.folder, 'merged'));
    disk.free();
    expect(await readdir(disk.folder)).toEqual([]);
    await merge(disk.folder);
    await openModelFolder(join(disk.folder, 'merged'));
  });

  it('leaves nothing, early or late as the disk is full', async () => {
    const whole = await mkdtemp(join(root, 'merge-'));
    const writes = await writesOf(() => merge(whole));
    expect(writes.length).toBeGreaterThan(5);
    // A merge takes a second or two: every sixth write, and the last ones, after the comparison.
    for (const at of writes.filter((number) => number % 6 === 0 || number > writes.length - 4)) {
      const folder = await mkdtemp(join(root, 'merge-'));
      disturbed.begin({ kind: 'ENOSPC', at });
      const thrown: unknown = await merge(folder).then(
        () => undefined,
        (error: unknown) => error,
      );
      disturbed.begin(undefined);
      if (thrown === undefined) {
        expect(await readFile(join(folder, 'merged/model.safetensors'))).toEqual(
          await readFile(join(whole, 'merged/model.safetensors')),
        );
      } else {
        expect(thrown, `at write ${at}`).toMatchObject({
          code: 'file.disk',
          exitCode: 3,
          where: join(folder, 'merged'),
        });
        expect(existsSync(join(folder, 'merged'))).toBe(false);
        expect(await readdir(folder)).toEqual([]);
      }
    }
  });
});
