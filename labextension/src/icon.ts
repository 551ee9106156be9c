import { LabIcon } from '@jupyterlab/ui-components';

/** A parcel in the theme's colour. */
export const packagerIcon = new LabIcon({
  name: 'packager:parcel',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">
  <path class="jp-icon3 jp-icon-selectable" fill="#616161"
    d="M12 2 3 6.5v11L12 22l9-4.5v-11L12 2zm0 2.2 5.9 3-2.3 1.1-5.9-2.9L12 4.2zM7.6 6.3l5.9 3L12 10 6.1 7.1l1.5-.8zM5 8.8l6 3v7.4l-6-3V8.8zm14 7.4-6 3v-7.4l6-3v7.4z"/>
</svg>`
});
