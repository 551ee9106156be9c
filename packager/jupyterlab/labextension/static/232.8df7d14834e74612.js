"use strict";(self.rspackChunkpackager_jupyterlab=self.rspackChunkpackager_jupyterlab||[]).push([[232],{475(e,r,a){var o=a(601),t=a.n(o),n=a(314),p=(a.n(n))()(t());p.push([e.id,`.jp-packager-panel {
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  display: flex;
  flex-direction: column;
  font-size: var(--jp-ui-font-size1);
}

.jp-packager-toolbar {
  align-items: center;
  border-bottom: 1px solid var(--jp-border-color2);
  display: flex;
  gap: 2px;
  padding: 4px 8px;
}

.jp-packager-title {
  flex: 1;
  font-weight: 600;
}

.jp-packager-button {
  align-items: center;
  background: none;
  border: 1px solid transparent;
  border-radius: 3px;
  cursor: pointer;
  display: inline-flex;
  padding: 4px;
}

.jp-packager-button:hover,
.jp-packager-row:hover {
  background: var(--jp-layout-color2);
}

.jp-packager-button:focus-visible,
.jp-packager-open:focus-visible,
.jp-packager-section > summary:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: -2px;
}

.jp-packager-lists {
  flex: 1;
  overflow: auto;
}

.jp-packager-section > summary {
  background: var(--jp-layout-color2);
  cursor: pointer;
  font-weight: 600;
  padding: 6px 8px;
  position: sticky;
  top: 0;
}

.jp-packager-count {
  color: var(--jp-ui-font-color2);
  font-weight: normal;
}

.jp-packager-section ul {
  list-style: none;
  margin: 0;
  padding: 0;
}

.jp-packager-row {
  align-items: center;
  border-bottom: 1px solid var(--jp-border-color3);
  display: flex;
  padding-right: 4px;
}

.jp-packager-open {
  background: none;
  border: 0;
  color: inherit;
  display: block;
  flex: 1;
  font: inherit;
  min-width: 0;
  padding: 6px 8px;
  text-align: left;
}

button.jp-packager-open {
  cursor: pointer;
}

.jp-packager-name {
  display: block;
  overflow-wrap: anywhere;
}

.jp-packager-facts {
  color: var(--jp-ui-font-color2);
  display: flex;
  flex-wrap: wrap;
  font-size: var(--jp-ui-font-size0);
  gap: 0 8px;
  overflow-wrap: anywhere;
}

.jp-packager-state {
  align-items: center;
  display: inline-flex;
  font-size: var(--jp-ui-font-size1);
  gap: 4px;
}

.jp-packager-facts .jp-packager-state {
  font-size: var(--jp-ui-font-size0);
}

.jp-packager-state::before {
  background: var(--jp-ui-font-color3);
  border-radius: 50%;
  content: '';
  height: 8px;
  width: 8px;
}

.jp-packager-state.jp-mod-running::before {
  background: var(--jp-brand-color1);
}

.jp-packager-state.jp-mod-succeeded::before {
  background: var(--jp-success-color1);
}

.jp-packager-state.jp-mod-failed::before {
  background: var(--jp-error-color1);
  border-radius: 0;
}

.jp-packager-none,
.jp-packager-more {
  margin: 8px;
}

.jp-packager-none {
  color: var(--jp-ui-font-color2);
}

.jp-packager-error {
  border-left: 4px solid var(--jp-error-color1);
  margin: 8px;
  overflow-wrap: anywhere;
  padding: 4px 8px;
  white-space: pre-wrap;
}

.jp-packager-packaging {
  display: flex;
  flex-direction: column;
  background: var(--jp-layout-color0);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
}

.jp-packager-head {
  flex: none;
  max-height: 50%;
  border-bottom: 1px solid var(--jp-border-color2);
  overflow: auto;
  padding: 0 12px;
}

.jp-packager-head h2 {
  font-size: var(--jp-ui-font-size3);
  margin: 8px 0;
}

.jp-packager-head dl {
  display: grid;
  gap: 2px 12px;
  grid-template-columns: max-content 1fr;
  margin: 0 0 8px;
}

.jp-packager-head dt {
  color: var(--jp-ui-font-color2);
}

.jp-packager-head dd {
  margin: 0;
  overflow-wrap: anywhere;
}

.jp-packager-head details {
  margin-bottom: 8px;
}

.jp-packager-log {
  flex: 1;
  min-height: 0;
  overflow: auto;
}

.jp-packager-log pre {
  box-sizing: border-box;
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size);
  margin: 0;
  min-height: 100%;
  padding: 8px 12px;
  white-space: pre-wrap;
}

.jp-packager-problem,
.jp-packager-outcomes pre {
  font-family: var(--jp-ui-font-family);
  margin: 0;
  overflow-wrap: anywhere;
  white-space: pre-wrap;
}

.jp-packager-outcomes {
  margin: 0;
  padding-left: 20px;
}
`,""]),a.d(r,{},{A:p})},314(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var a="",o=void 0!==r[5];return r[4]&&(a+="@supports (".concat(r[4],") {")),r[2]&&(a+="@media ".concat(r[2]," {")),o&&(a+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),a+=e(r),o&&(a+="}"),r[2]&&(a+="}"),r[4]&&(a+="}"),a}).join("")},r.i=function(e,a,o,t,n){"string"==typeof e&&(e=[[null,e,void 0]]);var p={};if(o)for(var i=0;i<this.length;i++){var c=this[i][0];null!=c&&(p[c]=!0)}for(var s=0;s<e.length;s++){var l=[].concat(e[s]);o&&p[l[0]]||(void 0!==n&&(void 0===l[5]||(l[1]="@layer".concat(l[5].length>0?" ".concat(l[5]):""," {").concat(l[1],"}")),l[5]=n),a&&(l[2]&&(l[1]="@media ".concat(l[2]," {").concat(l[1],"}")),l[2]=a),t&&(l[4]?(l[1]="@supports (".concat(l[4],") {").concat(l[1],"}"),l[4]=t):l[4]="".concat(t)),r.push(l))}},r}},601(e){e.exports=function(e){return e[1]}},72(e){var r=[];function a(e){for(var a=-1,o=0;o<r.length;o++)if(r[o].identifier===e){a=o;break}return a}function o(e,o){for(var t={},n=[],p=0;p<e.length;p++){var i=e[p],c=o.base?i[0]+o.base:i[0],s=t[c]||0,l="".concat(c," ").concat(s);t[c]=s+1;var d=a(l),u={css:i[1],media:i[2],sourceMap:i[3],supports:i[4],layer:i[5]};if(-1!==d)r[d].references++,r[d].updater(u);else{var f=function(e,r){var a=r.domAPI(r);return a.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&a.update(e=r):a.remove()}}(u,o);o.byIndex=p,r.splice(p,0,{identifier:l,updater:f,references:1})}n.push(l)}return n}e.exports=function(e,t){var n=o(e=e||[],t=t||{});return function(e){e=e||[];for(var p=0;p<n.length;p++){var i=a(n[p]);r[i].references--}for(var c=o(e,t),s=0;s<n.length;s++){var l=a(n[s]);0===r[l].references&&(r[l].updater(),r.splice(l,1))}n=c}}},659(e){var r={};e.exports=function(e,a){var o=function(e){if(void 0===r[e]){var a=document.querySelector(e);if(window.HTMLIFrameElement&&a instanceof window.HTMLIFrameElement)try{a=a.contentDocument.head}catch(e){a=null}r[e]=a}return r[e]}(e);if(!o)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");o.appendChild(a)}},540(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},56(e,r,a){e.exports=function(e){var r=a.nc;r&&e.setAttribute("nonce",r)}},825(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(a){var o,t,n;o="",a.supports&&(o+="@supports (".concat(a.supports,") {")),a.media&&(o+="@media ".concat(a.media," {")),(t=void 0!==a.layer)&&(o+="@layer".concat(a.layer.length>0?" ".concat(a.layer):""," {")),o+=a.css,t&&(o+="}"),a.media&&(o+="}"),a.supports&&(o+="}"),(n=a.sourceMap)&&"u">typeof btoa&&(o+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(n))))," */")),e.styleTagTransform(o,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}},579(e,r,a){var o=a(72),t=a.n(o),n=a(825),p=a.n(n),i=a(659),c=a.n(i),s=a(56),l=a.n(s),d=a(540),u=a.n(d),f=a(113),g=a.n(f),v=a(475),m={};m.styleTagTransform=g(),m.setAttributes=l(),m.insert=c().bind(null,"head"),m.domAPI=p(),m.insertStyleElement=u(),t()(v.A,m),v.A&&v.A.locals&&v.A.locals}}]);