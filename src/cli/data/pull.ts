import { resolve } from 'node:path';
import { z } from 'zod';
import { PUBLISHED_BASE_URL } from '../../data/published.js';
import { pullData } from '../../data/pull.js';
import type { Setup } from '../entry.js';
import { listening } from '../listen.js';
import { addConfigOptions, readConfig, readReporting } from '../options.js';

const options = z.object({ from: z.string() });

/** `data pull [DIR]`: fetches the published data; stdout gets the paths. */
export const setup: Setup = (command, host) => {
  command.argument('[dir]', 'Folder to fetch into.', 'data/zh-humor');
  command.option('--from <url>', 'Address of a mirror.', PUBLISHED_BASE_URL);
  addConfigOptions(command, 'data');
  command.action(async (dir: string) => {
    await readConfig(command, 'data');
    const reporting = readReporting(command);
    const { from } = options.parse(command.opts());
    const files = await listening({ ...reporting, json: false }, host, (context) =>
      pullData({
        dir: resolve(dir),
        baseUrl: from,
        signal: host.signal,
        onProgress: ({ file, received, total }) => {
          context.onEvent({ type: 'progress', task: `fetching ${file}`, done: received, total });
        },
      }),
    );
    if (reporting.json) host.print(JSON.stringify({ files }));
    else for (const { path, status } of files) host.print(status === 'present' ? `${path} (was there)` : path);
  });
};
